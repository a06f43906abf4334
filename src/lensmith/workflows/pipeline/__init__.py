"""From labelled images to a canary release, stage by stage, each done once."""
