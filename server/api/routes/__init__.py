"""The operations, by what they are about; `table` has all of them."""
