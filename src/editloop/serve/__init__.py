"""The live loop: serve policies behind one endpoint, take edits in, learn which policy is best."""
