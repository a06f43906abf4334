"""From labelled images to a gray release, stage by stage, each done once."""
