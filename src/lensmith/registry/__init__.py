"""Names, versions and aliases of models, in MLflow's registry. MLflow is imported when it is used."""
