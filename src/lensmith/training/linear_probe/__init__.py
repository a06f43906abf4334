"""Linear probe: a head fitted to cached features by a solver instead of gradient steps."""
