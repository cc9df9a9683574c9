"""The configuration of a study: schema, loading, overrides. Importing it loads no framework."""
