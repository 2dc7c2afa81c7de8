"""From a model and a sample to estimates: objective, engine, verdict, sampling covariance."""
