"""From raw chains of thought to cold-start data: chunk, weigh, select, rewrite; the SFT data set."""
