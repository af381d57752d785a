"""`make bench`: the figures the issues ask for, each a ratio to a floor taken in the same run."""
