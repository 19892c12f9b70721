"""Pyro programs: how their traces are read, where their noise comes from, how they are compiled.

| file | content |
|---|---|
| `arguments` | what programs are called with, and how examples are taken from it |
| `looking` | `look_at` runs a model and a guide once, and checks what a bound takes for granted |
| `looking_once` | the same programs are looked at once, for one chunk of rows after another |
| `pair` | what was found: the model, the guide, their sites, and how the two may be run |
| `traces` | log-probabilities of each example, from the traces of programs |
| `sites` | what each site is for, and whether a bound follows from the sites |
| `site_values` | values of a site, with a dimension for each of its plates |
| `masks` | which values of a site count |
| `observed_values` | whether data are in the supports of their distributions |
| `agreement` | whether a program gives the same log-probabilities, however it is run |
| `enumeration` | discrete sites, summed out of a model exactly |
| `change_of_variables` | guides that compute z from auxiliary noise, as autoguides do |
| `parameters` | the parameters of programs, apart from those of other programs |
| `program_state` | hashes of programs and of all that they depend on |
| `training_mode` | the modules in programs: training mode and buffers |
| `random_streams` | seeds of independent noise; the global random state is restored |
| `ranks` | several processes that do one piece of work together |
| `whole_batch_noise` | the noise of a whole batch, in a process that has some of its rows only |
| `compiling` | a function in which programs run -> one compiled graph |
| `decompositions` | operations, rewritten so that the compiled code is faster on a CPU |

Nothing here knows of variational autoencoders, bounds or objectives.
"""
