"""What a reconstruction or a sample is worth, in numbers.

evaluation.py  a tokenizer, over held-out data
generation.py  a prior, over held-out data and by what it draws
neighbours.py  whether a prior copies; neighbours_page.py shows it

pixels.py      PSNR and SSIM of two batches of pictures
frechet.py     the Fréchet distance between two sets of features
codebook.py    which share of the codebook is used, and how evenly
classes.py     pixel accuracy and mean IoU of two batches of class maps
asked.py       whether pictures show what they were asked for by, read off by a reader;
               truth.py has the figures
rejection.py   which of many samples are the most recognisable

judge.py       a small classifier of the data at hand: features and predictions
reader.py      a small network that reads maps off pictures
learning.py    how both are trained; kept.py keeps them
shares.py      one measurement by several processes; drawn.py of samples
"""
