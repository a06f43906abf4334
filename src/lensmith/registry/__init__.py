"""Model registry in MLflow: names, versions and aliases of models. MLflow is imported when it is used."""
