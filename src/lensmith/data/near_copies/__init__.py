"""Near copies: pictures that were resized, encoded anew, mirrored, turned or cropped a little, found by pixels."""
