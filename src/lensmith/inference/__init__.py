"""Running a bundle: engines, the classifier, batch prediction, selection and benchmark of engines; no torch."""
