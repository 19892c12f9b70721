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
one batch, and their density is that of (x, y) or of x: `bounds.evaluate`, `anneal` and
`enumeration` bound log p(x, y) where y is known, and log p(x) where it is not. `bidirectional` is
refused: it would simulate the labels. So are likelihoods that fit a scale to the batch, unless y is
drawn: all classes would be in it. The compiled engine cannot sum over the classes yet; it takes the
steps where y is not summed out.

Examples:
    The classes of 50 of the digits are known.

    >>> import torch
    >>> from pyro_vae import bounds, data, likelihoods, networks, posteriors, priors, training
    >>> digits = data.load("digits")
    >>> y = torch.where(torch.arange(len(digits.train)) < 50, digits.train_labels, -1)
    >>> m2 = SemiSupervised(
    ...     priors.StandardNormal(10),
    ...     likelihoods.Bernoulli(10 + 10, digits.kind),
    ...     posteriors.Normal([64 + 10], 10),
    ...     networks.MLP([8, 8], [10]),
    ... )
    >>> see = m2.guide.kind.observe  # draws binary pixels
    >>> objective = SemiSupervisedELBO(alpha=0.1 * len(y) / 50)
    >>> engine = training.EagerEngine(m2.model, m2.guide, objective)
    >>> rows = torch.arange(len(y))
    >>> history = training.fit(
    ...     engine, rows, lambda i: (see(digits.train[i]), y[i]), epochs=1, progress=False
    ... )
    >>> x = see(digits.test)
    >>> m2.eval().classify(x).shape
    torch.Size([179, 10])
    >>> of_x = bounds.evaluate(m2.model, m2.guide, x, 20)  # of log p(x), and of log p(x, y):
    >>> of_both = bounds.evaluate(m2.model, m2.guide, (x, digits.test_labels), 20)
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
