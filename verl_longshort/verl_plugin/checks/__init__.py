"""What is settled before a run starts: the configuration of each policy, what cannot work, where a run resumes."""
