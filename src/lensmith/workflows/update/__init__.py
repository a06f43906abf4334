"""Update: a model trained again with new pictures, compared with the one before on held-out pictures, and promoted."""
