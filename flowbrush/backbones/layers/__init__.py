"""Leaves that several networks share. No argument of theirs names a model."""
