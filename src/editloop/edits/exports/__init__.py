"""The views of a log in other tools' formats.

A format of one's own is an `Export`, a function of records. A program registers it by
`EXPORTS.register(name, function)`; an installed package names it in the entry point group `editloop.exports`.
"""

from editloop.edits.exports.base import Export, Row
from editloop.edits.exports.writing import EXPORTS, Exported, export

__all__ = ["EXPORTS", "Export", "Exported", "Row", "export"]
