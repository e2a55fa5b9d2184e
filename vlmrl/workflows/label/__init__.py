"""The page where people compare clips."""
