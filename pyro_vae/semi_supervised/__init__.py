"""Semi-supervised learning: model M2 of Kingma, Rezende, Mohamed & Welling (2014).

    p(x, y, z) = p(x | z, y) p(z) p(y),    q(y, z | x) = q(z | x, y) q(y | x)

y is the class of x, and z is what else there is to say about x. With their -L(x, y), a bound on
log p(x, y), the objective of all examples is

    -L(x, y) = E_q(z|x,y)[log p(x|z, y) + log p(y) + log p(z) - log q(z|x, y)]    (equation 6)
    -U(x)    = sum_y q(y|x) (-L(x, y)) + H(q(y|x))                               (equation 7)
    -J       = sum_labelled -L(x, y) + sum_unlabelled -U(x)                      (equation 8)
    -J_alpha = -J + alpha sum_labelled log q(y|x)                                (equation 9)

The programs take y of shape [batch], whole numbers, negative where the class is unknown. Where it
is known, the site "y" is a point mass at the class in both programs, and the model observes the
class at the site "label". So the same programs have -L where y is known and -U where it is not, in
one batch, and their density is that of (x, y) or of x: bounds and annealing need no more.
"""

from pyro_vae.semi_supervised.class_and_code import SemiSupervised
from pyro_vae.semi_supervised.class_evidence import ClassEvidence, class_evidence
from pyro_vae.semi_supervised.classification_loss import SemiSupervisedELBO
from pyro_vae.semi_supervised.labelled_programs import LabelledGuide, LabelledModel

__all__ = [
    "ClassEvidence",
    "LabelledGuide",
    "LabelledModel",
    "SemiSupervised",
    "SemiSupervisedELBO",
    "class_evidence",
]
