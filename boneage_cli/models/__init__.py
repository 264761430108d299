"""Networks in plain torch: they know no settings file, and of files only weights to begin with."""
