"""From a table of numbers to a law: many small stacks are trained, rounded and checked."""
