"""Problems, thoughts, cold-start data and the miniature world; nothing here knows verl except `sft_dataset`."""
