"""The paper's rivals on TRIP's footing: Fader Networks, RankCGAN, RelGAN; and one of ours, "two critics".

    python study/rivals.py relgan --attr smile              train one; results in runs/smile-relgan
    python study/rivals.py relgan --mask --out runs/masked  or fn, rcgan, two-critics; --help has the settings
    python eval.py runs/smile runs/smile-fn                 judge: TRIP's run first, its ranker judges all
    python trip.py --edit me.jpg --out runs/smile-relgan    apply it to a picture

Written anew from their papers and from what their released programs do. They get TRIP's pictures and, by
default, the time of TRIP's default run on one core. Every generator is G(x, v). But v means two things: TRIP
and RelGAN are asked for a *change* (0: none), FN and RankCGAN for a *strength* of the result (-1: none of it,
1: all, 0: half, on any face). B pictures, K attributes; labels y float (B, K), 0 or 1.

    fn           an auto-encoder. A critic P reads the label off the code z, the encoder learns to mislead it, and
                 the decoder gets the label from outside: (1 - alpha, alpha), alpha = (1 + v) / 2
    rcgan        draws from noise z and a strength r; no picture goes in. Its ranker learns from real pairs. Then
                 two encoders learn to read z and r off *drawn* pictures. Edit: x -> z, drawn with r = v
    two-critics  no published method: RankCGAN's two critics, each with its own features, on TRIP's generator
                 (as TRIP's introduction speaks of RankCGAN: from picture to picture). v is a change
    relgan       three heads on the same features: is y real; do (x, y, v) fit; how far is y from both ends of
                 the dial? v is the difference of two pictures' labels: in training -1, 0 or 1

           paper or released code                      here
    fn     6 layers to a code of 4 x 4, at 256 px      to 2 x 2 at any size (at 64 px 4 x 4 is known to fail)
           lambda 1e-4 after 500,000 steps             lam_lat after `ramp` of the steps; rates 1e-3, not 2e-4
    rcgan  64 filters, batches of 64, rates 2e-4       32, 16, 3e-4; D's real pictures are those of the pairs
    relgan Table 3's generator                         TRIP's, which moves and paints; its f0 is x by itself
           penalty 150 on the sum of a map, norm 1     TRIP's 4 on its mean, norm 0; TRIP's rates, betas, shift
           a few alphas for all training (Keras)       one for each picture and step
           v = y_a - y_b (PyTorch)                     y_b - y_a
           "wrong" triplets that are right (K = 1)     so, too; --mask leaves them out
    all    constant rates, as far as they go           fall from decay_from on; gradients are clipped (FN's too)
"""

import argparse
import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data  # noqa: E402
import trip  # noqa: E402
from data import InputError  # noqa: E402
from trip import setting  # noqa: E402

# rival -> its defaults, where they are not trip.Config's. `steps`: what TRIP's default run has time for
DEFAULTS = {
    "fn": dict(steps=1800, batch=32, lr_g=1e-3, lr_r=1e-3, beta2=0.999, clip=5.0),
    "rcgan": dict(steps=2500, batch=16, lr_g=3e-4, lr_r=3e-4, beta2=0.999),
    "two-critics": dict(steps=1000),
    "relgan": dict(steps=1000, lam_g=1.0, lam_c=10.0, lam_o=1e-6)}
PHOTO = dict(colour=1.0, measure_every=100)  # for photographs, as in TRIP's preset; and four times the steps
# the settings that each has, beside COMMON
COMMON = ("attr", "data", "root", "size", "steps", "batch", "seed", "lr_g", "lr_r", "beta1", "beta2", "decay_from",
          "clip", "measure_every", "save_every")
TRIPS = ("g_width", "g_down", "g_blocks", "r_width", "shift", "colour", "lam_g", "lam_gp", "gp_center")
SETTINGS = {"fn": ("width", "lam_lat", "ramp"), "rcgan": ("width", "gan_share"),
            "two-critics": (*TRIPS, "lam_rank", "lam_keep", "lam_paint"),
            "relgan": (*TRIPS, "lam_match", "lam_int", "lam_c", "lam_self", "lam_o", "mask")}


@dataclass
class Config(trip.Config):
    """trip.Config and a few more. A rival uses what SETTINGS says."""
    rival: str = setting("relgan", "which one", choices=tuple(SETTINGS))
    width: int = setting(32, "filters of the largest maps", 1, 1024)
    lam_lat: float = setting(1e-2, "weight of misleading the critic of the code")
    ramp: float = setting(0.5, "share of STEPS in which this weight rises from 0", 1e-9, 1)
    gan_share: float = setting(0.56, "share of STEPS without the encoders; they have the rest", 0.01, 0.99)
    lam_match: float = setting(1.0, "weight of the matching losses")
    lam_int: float = setting(10.0, "weight of the interpolation losses")
    lam_self: float = setting(10.0, "weight of |G(x, 0) - x|")
    mask: bool = setting(False, "leave out the wrong triplets that are right ones")

    def __post_init__(self):
        super().__post_init__()
        if len(self.attr) > 1 and self.rival in ("rcgan", "two-critics"):
            raise InputError(f"--attr {data.show(self.attr)}: {self.rival} learns one attribute; name one")
        if self.batch < 2:
            raise InputError(f"--batch {self.batch}: type 2 or more")


def configured(rival, **given):
    """The Config of a rival: its defaults, PHOTO for photographs, and what is given."""
    photo = PHOTO | dict(steps=4 * DEFAULTS[rival]["steps"]) if given.get("data", "faces") != "faces" else {}
    return Config(**DEFAULTS[rival] | photo | given | dict(rival=rival))


def draw(train_data, n, rng, device):
    """Endless batches of n training pictures, mirrored at random as in data.pairs: x (n, 3, H, W), y (n, K)."""
    while True:
        rows = torch.randint(len(train_data), (n,), generator=rng)
        x = data.as_float(train_data.images[rows].to(device))
        mirrored = torch.rand(n, 1, 1, 1, generator=rng).to(device) < 0.5
        yield torch.where(mirrored, x.flip(3), x), train_data.labels[rows].float().to(device)


class Rival(trip.Run):
    """A run as trip.py and eval.py know it, with other players. R is None: none has TRIP's kind of ranker.

    A subclass has `players`, networks by name, G among them if it isn't TRIP's; `stream`, of batches; and
    `iterate`, which makes a step of each player and returns the weighted losses. All critics share opt_r.
    """
    absolute = False  # whether v is a strength, not a change

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        players, c = {"G": self.G} | self.players(config, len(config.attr)), config
        for name, net in players.items():
            setattr(self, name, net.to(self.device, memory_format=torch.channels_last))
        adam = dict(betas=(c.beta1, c.beta2), fused=self.device.type == "cuda")
        critics = [p for name, net in players.items() if name != "G" for p in net.parameters()]
        self.opt_g = torch.optim.Adam(self.G.parameters(), c.lr_g, **adam)
        self.opt_r = torch.optim.Adam(critics, c.lr_r, **adam)
        self.R, self.warmup, self.nets = None, 0, (*players, "opt_g", "opt_r")

    def train(self, train_data):
        """Go on to config.steps iterations, as trip.train does; yields the weighted losses of each."""
        stream = self.stream(train_data)
        while self.step < self.config.steps:
            trip.set_rates(self)
            losses = self.iterate(*next(stream))
            self.step += 1
            yield losses

    def measure(self, x, labels):
        """What eval.watch notes of held-out pictures beside recon_l1: name -> number."""
        return {}


# ------------------------------------------------------------------------------------------------------------
# Fader Networks (Lample et al. 2017)

def halving(a, b, norm=True, bias=True):
    """Layers from a to b channels, half as wide and high."""
    return [nn.Conv2d(a, b, 4, 2, 1, bias=bias), *[nn.BatchNorm2d(b)][:norm], nn.LeakyReLU(0.2)]


class Fader(nn.Module):
    """D(E(x), alpha): a code z = E(x), (B, c, 2, 2), and a decoder whose every layer gets alpha. No skips."""

    def __init__(self, K, width, size):
        super().__init__()
        channels = [3] + [min(width << i, 16 * width) for i in range(int(math.log2(size)) - 1)]
        pairs = list(zip(channels, channels[1:]))
        self.encode = nn.Sequential(*sum((halving(a, b, norm=a > 3) for a, b in pairs), []))
        ends = [[nn.BatchNorm2d(a), nn.ReLU()] if a > 3 else [nn.Tanh()] for a, _ in pairs]
        self.decoder = nn.ModuleList([
            nn.Sequential(nn.ConvTranspose2d(b + 2 * K, a, 4, 2, 1, bias=a == 3), *end)
            for (a, b), end in zip(pairs[::-1], ends[::-1])])
        self.code = channels[-1]

    def decode(self, z, alpha):
        """The picture of a code z with strengths alpha (B, K), 0 absent .. 1 present."""
        for layer in self.decoder:
            z = layer(trip.with_planes(z, torch.cat([1 - alpha, alpha], 1)))
        return z

    def forward(self, x, v):
        return self.decode(self.encode(x), (1 + v) / 2)


def latent_loss(said, y):
    """Cross entropy of P(z) with y, summed over the K. said: (B, 2 K), scores of absent, then of present."""
    return y.shape[1] * F.cross_entropy(said.unflatten(1, (2, -1)), y.long())


class FN(Rival):
    absolute = True

    def players(self, c, K):
        G, most = Fader(K, c.width, c.size), 16 * c.width
        c2 = min(2 * G.code, most)
        P = nn.Sequential(*halving(G.code, c2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(c2, most),
                          nn.LeakyReLU(0.2), nn.Linear(most, 2 * K))
        return {"G": G, "P": P}

    def stream(self, train_data):
        return draw(train_data, 2 * self.config.batch, self.rng, self.device)  # a batch for each player

    def iterate(self, x, y):
        """P learns the label of a code; G to draw x from code and label, and to make P say the other label."""
        c, G, P = self.config, self.G, self.P
        (x_p, x), (y_p, y) = x.chunk(2), y.chunk(2)
        G.eval(), P.train()  # (who learns is in training mode, who is asked is not: as released)
        with torch.no_grad():
            z = G.encode(x_p)
        critic = {"ranker_latent": latent_loss(P(z), y_p)}
        trip.update(P, self.opt_r, critic, c.clip)
        G.train(), P.eval()
        z = G.encode(x)
        losses = {"generator_mse": ((G.decode(z, y) - x) ** 2).mean(),
                  "generator_latent": self.lam_lat() * latent_loss(P(z), 1 - y)}
        trip.update(G, self.opt_g, losses, c.clip)
        return critic | losses

    def lam_lat(self):
        """The weight in this iteration: from 0 straight up to lam_lat."""
        return self.config.lam_lat * min(1, self.step / (self.config.ramp * self.config.steps))

    def measure(self, x, labels):
        """How often P is right: one half where the code keeps nothing of the label."""
        self.G.eval(), self.P.eval()
        absent, present = self.P(self.G.encode(x)).chunk(2, 1)
        return {"latent_accuracy": ((present > absent) == labels).float().mean().item()}


# ------------------------------------------------------------------------------------------------------------
# RankCGAN (Saquil et al. 2018)

def entropy(scores, target):
    """Cross entropy of sigmoid(scores) with target, a tensor or a number. Of a difference of two scores it is
    RankNet, its target 1 where the first one is of the picture that has more."""
    return F.binary_cross_entropy_with_logits(scores, target + torch.zeros_like(scores))


def reader(outputs, width, size, bias=False):
    """DCGAN's critic: (B, 3, size, size) -> (B, outputs)."""
    channels = [3] + [width << i for i in range(int(math.log2(size)) - 2)]
    layers = sum((halving(a, b, bias=bias) for a, b in zip(channels, channels[1:])), [])
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], outputs, 4, bias=bias), nn.Flatten())


class Editor(nn.Module):
    """G(x, v) = drawn(z(x), v): of x nothing is left but the 100 numbers that an encoder reads off it."""

    def __init__(self, K, width, size, noise=100):
        super().__init__()
        channels = [noise + K] + [width << i for i in range(int(math.log2(size)) - 2)][::-1]
        layers = [[nn.ConvTranspose2d(a, b, 4, 1 + (i > 0), int(i > 0), bias=False), nn.BatchNorm2d(b), nn.ReLU()]
                  for i, (a, b) in enumerate(zip(channels, channels[1:]))]  # DCGAN's generator, 1 x 1, 4 x 4 ...
        self.up = nn.Sequential(*sum(layers, []), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
        self.z, self.r = reader(noise, width, size), nn.Sequential(reader(K, width, size), nn.Tanh())

    def drawn(self, z, r):
        """The picture of noise z (B, 100) with strengths r (B, K)."""
        return self.up(torch.cat([z, r], 1)[:, :, None, None])

    def forward(self, x, v):
        return self.drawn(self.z(x), v)


class RankCGAN(Rival):
    absolute = True

    def players(self, c, K):
        nets = Editor(K, c.width, c.size), reader(1, c.width, c.size), reader(K, c.width, c.size, bias=True)
        for layer in [layer for net in nets for layer in net.modules()]:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):  # DCGAN's first weights
                nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
        return dict(zip(("G", "D", "ranker"), nets))

    def stream(self, train_data):
        return data.pairs(train_data, self.config.batch // 2, self.rng, device=self.device)

    def iterate(self, x, y, r):
        """A step of D, of the ranker, on real pairs only, and of G; in the end of the encoders instead."""
        c, G, D, ranker, real = self.config, self.G.train(), self.D, self.ranker, torch.cat([x, y])
        z = torch.randn(len(real), G.up[0].in_channels - 1, generator=self.rng).to(self.device)
        strength = 2 * trip.random(self, len(real), 1) - 1
        if self.step >= c.gan_share * c.steps:
            G.up.eval()
            with torch.no_grad():
                drawn = G.drawn(z, strength)  # the encoders never see a picture of the data set: as released
            losses = {"generator_z": ((G.z(drawn) - z) ** 2).mean(),
                      "generator_r": ((G.r(drawn) - strength) ** 2).mean()}
            trip.update(G, self.opt_g, losses, c.clip)  # (`up` had no part in them and gets no gradient)
            return losses
        fake = G.drawn(z, strength)
        critic = {"ranker_gan": entropy(D(real), 1) + entropy(D(fake.detach()), 0)}
        trip.update(D, self.opt_r, critic, c.clip)
        score_x, score_y = ranker(real).chunk(2)
        rank = {"ranker_rank": entropy(score_y - score_x, (r + 1) / 2)}
        trip.update(ranker, self.opt_r, rank, c.clip)
        (score_i, score_j), (i, j) = ranker(fake).chunk(2), strength.chunk(2)  # other noise, other strength
        losses = {"generator_gan": entropy(D(fake), 1),
                  "generator_rank": entropy(score_i - score_j, (i >= j).float())}
        trip.update(G.up, self.opt_g, losses, c.clip)
        return critic | rank | losses

    def measure(self, x, labels):
        """L1 to x of x drawn from its own z and r, as the encoders read them."""
        G = self.G.eval()
        return {"encoded_l1": (G.drawn(G.z(x), G.r(x)) - x).abs().mean().item()}


class TwoCritics(Rival):
    """With TRIP's prices of change and paint: close to TRIP with lambda = 0, CLS and split features."""

    def players(self, c, K):
        return {name: trip.Ranker(K, c.r_width, c.size) for name in ("D", "ranker")}

    def stream(self, train_data):
        return data.pairs(train_data, self.config.batch, self.rng, device=self.device)

    def iterate(self, x, y, r):
        """A step of D (Eq. 6a), of the ranker, on real pairs only, and of G, which has to order two v of x."""
        c, G, D, ranker, n = self.config, self.G, self.D, self.ranker, len(x)
        v_i, v_j = (2 * trip.random(self, n, 1) - 1 for _ in range(2))
        x2 = torch.cat([x, x])
        fake, x_moved = G(x2, torch.cat([v_i, v_j]), parts=True)
        said = D.critic(D.features(trip.augmented(self, torch.cat([x, y, fake.detach()]))))
        penalty = trip.gradient_penalty(D, x, fake[:n].detach(), trip.random(self, n, 1, 1, 1), c.gp_center)
        critic = {"ranker_gan": c.lam_g * trip.ranker_gan_loss(*said.chunk(2)), "ranker_gp": c.lam_gp * penalty}
        trip.update(D, self.opt_r, critic, c.clip)
        fx, fy = ranker.features(trip.augmented(self, torch.cat([x, y]))).chunk(2)
        rank = {"ranker_rank": c.lam_rank * entropy(ranker.rank(fx, fy), (r + 1) / 2)}
        trip.update(ranker, self.opt_r, rank, c.clip)
        seen = trip.augmented(self, fake)
        f_i, f_j = ranker.features(seen).chunk(2)
        losses = {"generator_gan": c.lam_g * trip.generator_gan_loss(D.critic(D.features(seen))),
                  "generator_rank": c.lam_rank * entropy(ranker.rank(f_j, f_i), (v_i >= v_j).float()),
                  "generator_keep": c.lam_keep * trip.keep_loss(x2, fake),
                  "generator_paint": c.lam_paint * trip.keep_loss(x_moved, fake)}
        trip.update(G, self.opt_g, losses, c.clip)
        return critic | rank | losses


# ------------------------------------------------------------------------------------------------------------
# RelGAN (Wu et al. 2019)

class Triplet(nn.Module):
    """Three heads on the features F (B, c, 4, 4) of trip.Ranker, each of which answers with a map (B, 1, 4, 4)."""

    def __init__(self, K, width, size):
        super().__init__()
        self.features = trip.Ranker(K, width, size).features
        c = self.features[-2].out_channels
        self.real = nn.Conv2d(c, 1, 1)  # F(y): 1 real, 0 not
        self.match_head = nn.Sequential(nn.Conv2d(2 * c + K, c, 1), nn.LeakyReLU(0.01), nn.Conv2d(c, 1, 1))
        self.between = nn.Conv2d(c, 1, 1)  # F(y): alpha or 1 - alpha, the smaller: 0 at both ends of the dial
        trip.he_weights(self)

    def match(self, fx, fy, v):
        """Is v the difference of y to x? 1 yes, 0 no."""
        return self.match_head(trip.with_planes(torch.cat([fx, fy], 1), v))

    def critic(self, fx):
        """What trip.gradient_penalty smooths: (B, 1), the mean of the map."""
        return self.real(fx).mean((2, 3))


def wrong_triplets(y):
    """The four triplets (x, y, v) that shall not fit, of pictures a, b, c. y: {"a": labels (B, K), ...}.

    Yields the names of x and y, v, and weights (B, 1, 1, 1) for --mask: 0 where v fits after all. With K = 1 two
    of the four do where b - a is +-1; of a tie all or none.
    """
    v, v_ac, v_cb = y["b"] - y["a"], y["c"] - y["a"], y["b"] - y["c"]
    for first, second, wrong in (("c", "b", v), ("a", "c", v), ("a", "b", v_ac), ("a", "b", v_cb)):
        yield first, second, wrong, (wrong != y[second] - y[first]).any(1).float()[:, None, None, None]


class RelGAN(Rival):
    def players(self, c, K):
        return {"D": Triplet(K, c.r_width, c.size)}

    def stream(self, train_data):
        return draw(train_data, 3 * self.config.batch, self.rng, self.device)

    def iterate(self, x, y):
        """A step of the heads, then one of G, with f = G(a, v), f0 = G(a, 0), fi = G(a, alpha v)."""
        c, G, D = self.config, self.G, self.D
        (a, b, _), labels = x.chunk(3), dict(zip("abc", y.chunk(3)))
        v, n, alpha = labels["b"] - labels["a"], len(a), trip.random(self, len(a), 1)
        fakes = G(torch.cat([a, a, a]), torch.cat([v, 0 * v, alpha * v]))
        f, f0, fi = fakes.chunk(3)
        alpha = alpha[:, :, None, None]
        seen = D.features(trip.augmented(self, torch.cat([x, fakes.detach()])))
        of = dict(zip(("a", "b", "c", "f", "f0", "fi"), seen.split(n)))
        match = ((D.match(of["a"], of["b"], v) - 1) ** 2).mean() + (D.match(of["a"], of["f"], v) ** 2).mean()
        for first, second, wrong, weight in wrong_triplets(labels):
            fit = D.match(of[first], of[second], wrong) ** 2
            match = match + (weight * fit if c.mask else fit).mean()
        end = torch.where(alpha < 0.5, D.between(of["f0"]), D.between(of["f"]))  # the nearer one
        between = ((D.between(of["fi"]) - torch.minimum(alpha, 1 - alpha)) ** 2).mean() + (end ** 2).mean()
        penalty = trip.gradient_penalty(D, a, f.detach(), trip.random(self, n, 1, 1, 1), c.gp_center)
        critic = {"ranker_gan": c.lam_g * trip.ranker_gan_loss(D.real(of["b"]), D.real(of["f"])),
                  "ranker_match": c.lam_match * match, "ranker_between": c.lam_int * between,
                  "ranker_gp": c.lam_gp * penalty}
        trip.update(D, self.opt_r, critic, c.clip)
        fa, ff, ffi = D.features(trip.augmented(self, torch.cat([a, f, fi]))).chunk(3)
        losses = {"generator_gan": c.lam_g * trip.generator_gan_loss(D.real(ff)),
                  "generator_match": c.lam_match * ((D.match(fa, ff, v) - 1) ** 2).mean(),
                  "generator_between": c.lam_int * (D.between(ffi) ** 2).mean(),
                  "generator_cycle": c.lam_c * trip.cycle_loss(a, G(f, -v)),
                  "generator_self": c.lam_self * trip.cycle_loss(a, f0),
                  "generator_orthogonal": c.lam_o * trip.orthogonal_penalty(G)}
        trip.update(G, self.opt_g, losses, c.clip)
        return critic | losses


RIVALS = {"fn": FN, "rcgan": RankCGAN, "two-critics": TwoCritics, "relgan": RelGAN}


# ------------------------------------------------------------------------------------------------------------
# Command line

def parse(argv):
    """The arguments typed, with the run's Config. InputError for an unknown rival, or a setting that it hasn't."""
    parser = data.Parser(prog="study/rivals.py", description="Train a rival of TRIP.")
    parser.add_argument("rival", help=", ".join(RIVALS))
    parser.add_argument("--out", type=Path, help="folder of the run (default: as in runs/smile-relgan)")
    parser.add_argument("--overwrite", action="store_true", help="start anew, in place of the run in --out")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: what there is)")
    options = [f for f in fields(Config) if f.name in {*COMMON, *sum(SETTINGS.values(), ())}]
    for f in options:
        kind = (dict(nargs="+", metavar="NAME") if f.type is tuple else
                dict(action=argparse.BooleanOptionalAction) if f.type is bool else dict(type=f.type))
        own = [f"{rival}: {its[f.name]}" for rival, its in DEFAULTS.items() if f.name in its]
        parser.add_argument(f"--{f.name}", default=argparse.SUPPRESS, **kind, help=f"{f.metadata['help']} (default: "
                            f"{', '.join([data.show(f.default) or 'none', *own])})")
    args = parser.parse_args(argv)
    if args.rival not in RIVALS:
        raise InputError(f"unknown rival {args.rival!r}: {data.nearest(args.rival, list(RIVALS))}")
    given = {f.name: f.type(getattr(args, f.name)) for f in options if hasattr(args, f.name)}
    for name in given.keys() - {*COMMON, *SETTINGS[args.rival]}:
        raise InputError(f"--{name}: {args.rival} has no such setting, but {', '.join(SETTINGS[args.rival])}")
    args.config = configured(args.rival, **given)
    args.preset, args.download = "small" if args.config.data == "faces" else "photo", False
    return args


def command(argv):
    args = parse(argv)
    out = args.out or Path("runs") / f"{'_'.join(args.config.attr)}-{args.rival}"
    if (out / "trip.pt").exists() and not args.overwrite:
        raise InputError(f"{out} holds a run: add --overwrite to start anew, or name another folder with --out")
    run = RIVALS[args.rival](args.config, data.choose_device(args.device))
    return trip.train_command(run, args, out, ("to start anew", f"study/rivals.py {args.rival}", "--overwrite"))


def main(argv=None):
    return data.exit_code("study/rivals.py", command, argv)


if __name__ == "__main__":
    sys.exit(main())
