"""The bundle contract: what training leaves and serving runs, as a folder or a zip, written whole or not at all."""
