"""Networks in plain torch: no settings files; the only files read are pretrained weights."""
