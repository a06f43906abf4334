"""The run folder: checkpoints, events, pictures, and which run goes on."""
