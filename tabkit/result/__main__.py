"""``python -m tabkit.result`` writes ``result.schema.json`` again, from the models."""

from tabkit.files import write_text
from tabkit.result.document import SCHEMA, schema_text

write_text(SCHEMA, schema_text())
