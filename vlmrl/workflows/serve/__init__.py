"""A server of rewards: what a request means, how HTTP carries it, and where replicas of it run."""
