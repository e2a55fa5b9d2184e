"""Makes what `reward=optimal_transport` compares with: demonstrations, and features aligned with preferences."""
