"""From a run to a bundle: graph, parity with PyTorch, golden samples, report, model card."""
