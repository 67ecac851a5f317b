"""What every node process imports, imported once.

The fork server of a demo loads this module and then forks each node from itself: seven nodes start in the
time of one, and one that was killed is back in a fraction of a second. Nothing here runs any code of torch
or numba, whose threads would not survive a fork.
"""

import flocknode.learning.poisoning
import flocknode.learning.trainer
import flocknode.process

LOADED = (flocknode.learning.poisoning, flocknode.learning.trainer, flocknode.process)
