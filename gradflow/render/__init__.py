"""Pictures, tables and pages, made from the numpy records; nothing here knows torch or changes a record."""
