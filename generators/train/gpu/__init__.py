"""Forward and backward pass of a frozen decoder with adapters, in few and large MLX operations."""
