"""Networks: arrays in, arrays out; no file, flag, data set or optimizer in here."""
