"""The configuration of the autopilot. Its fields are the only place of a default, a range and a help text."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from editloop.autopilot.assignment import Unit
from editloop.configuration import Configuration, setting

__all__ = ["AutopilotConfig"]

FITS, STEPS, NOTICES = "When to refit", "Stages", "Notices"


class AutopilotConfig(Configuration):
    """The configuration of the autopilot. `AutopilotConfig.model_fields` has a description of every field."""

    learn_from: str = setting(
        "sft,early",
        "The methods of each fit, as of `editloop fit --methods`; the best of them becomes the generation's "
        "policy.",
        section=FITS,
    )
    reference: Literal["base", "logged"] = setting(
        "base",
        "The reference of preference losses, as of `editloop fit --reference`: the base, or the policies "
        "that wrote the rows.",
        section=FITS,
    )
    start: Literal["base", "champion"] = setting(
        "base",
        "Where each fit begins: at the base, or at the champion's adapter, as of `editloop fit --start`. "
        "A champion without an adapter, or one that may have learned from somebody who was forgotten since, "
        "gives way to the base.",
        section=FITS,
    )
    min_edits: int = setting(
        100,
        "Fit again when there are so many edits of new requests since the last fit; a quarter of them is "
        "enough once costs have risen beyond chance, or where the last policy was rejected before users saw "
        "it.",
        section=FITS,
        common=True,
        ge=1,
    )
    growth: float = setting(
        0.25,
        "And when they are at least this share of the edits that the last fit learned from.",
        section=FITS,
        ge=0,
    )
    personal_edits: int = setting(
        0,
        "Fit an arm of one's own for each user with so many edits, and again after as many new ones, or a "
        "quarter as many as it had read if that is more; 0 for none.",
        section=FITS,
        ge=0,
    )
    fit_at: str | None = setting(
        None, "Fit only within the hour from this time of day, such as 03:00, in local time.", section=FITS
    )
    fit_minutes: float = setting(
        240.0, "The most minutes of fits in 24 hours; a fit that goes beyond is stopped.", section=FITS, gt=0
    )
    fit_memory: str | None = setting(
        None, "The most memory of a fit, as of `editloop fit --memory`.", section=FITS
    )
    niceness: int = setting(
        19,
        "How far a fit steps back behind other processes; with 19 it gets only the time that none wants.",
        section=FITS,
        ge=0,
        le=19,
    )
    hold_out: float = setting(
        0.1,
        "The share of the requests that no fit reads, so that policies can be compared on them.",
        section=FITS,
        ge=0,
        lt=1,
    )
    shadow_share: float = setting(
        0.2,
        "The share of the requests for which a policy in the shadow writes a draft that nobody sees.",
        section=STEPS,
        ge=0.001,
        le=1,
    )
    shadow_rounds: int = setting(
        60,
        "Edited requests with such drafts after which a policy that is not worse goes on to the canary; 0 "
        "leaves the shadow out.",
        section=STEPS,
        ge=0,
    )
    canary_share: float = setting(
        0.2,
        "The share of the users who get the policy in the canary.",
        section=STEPS,
        common=True,
        gt=0,
        le=0.5,
    )
    canary_rounds: int = setting(
        400,
        "Costs of the policy in the canary after which it is rejected unless it was shown to be better.",
        section=STEPS,
        common=True,
        ge=20,
    )
    canary_unit: Unit | Literal["auto"] = setting(
        "auto",
        "Whether users or requests are drawn for the canary; auto takes users if there are 8 or more.",
        section=STEPS,
    )
    confidence: float = setting(
        0.95,
        "The probability, at least, with which a policy that is no better never becomes an arm.",
        section=STEPS,
        ge=0.5,
        lt=1,
    )
    most_arms: int = setting(
        4, "The arms beyond which the worst one that is not the champion is retired.", section=STEPS, ge=1
    )
    webhook: str | None = setting(None, "A URL to which each transition is posted as JSON.", section=NOTICES)
    lease: float = setting(
        30.0,
        "Seconds without a sign of life of one autopilot after which another one takes over.",
        section=NOTICES,
        ge=1,
    )
    interval: float = setting(
        5.0, "Seconds between two looks at the store.", section=NOTICES, ge=0.05, le=3600
    )

    @field_validator("fit_at", mode="after")
    @classmethod
    def _time_of_day(cls, given: str | None) -> str | None:
        if given is not None:
            hours, colon, minutes = given.partition(":")
            if not (
                colon and hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60
            ):
                raise ValueError("a time of day is HH:MM")
        return given
