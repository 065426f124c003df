"""Problems, thoughts, cold-start data and the miniature world; only `sft_dataset` knows verl."""
