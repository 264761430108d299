"""Networks in plain torch: they know no files and no settings file."""
