"""From files to ages and sexes."""
