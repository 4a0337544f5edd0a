-- Beside Prefect's database, which the image makes.
CREATE DATABASE mlflow OWNER ccai;
