"""Problems with known answers: benchmarks, RL data and chains, read by one reader; overlap between sets."""
