"""Runtime fields: every value of a beam's configuration that clients may read, and those they may set."""

from baldr_tango.beam.fields.conversion import Domain, UnfitError, numbers
from baldr_tango.beam.fields.field import Field, FieldTable
from baldr_tango.beam.fields.table import FIELDS

__all__ = ["FIELDS", "Domain", "Field", "FieldTable", "UnfitError", "numbers"]
