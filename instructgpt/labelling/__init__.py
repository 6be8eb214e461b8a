"""People in the loop: pages for labelers, what they are sent, what comes back."""
