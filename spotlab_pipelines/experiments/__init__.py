"""What was decided and what came of it: the log in Postgres, its questions, and the same evaluations in MLflow."""
