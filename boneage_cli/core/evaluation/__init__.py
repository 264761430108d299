"""What models are worth: figures on radiographs whose ages are known."""
