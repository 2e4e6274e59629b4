"""The paper's rivals on TRIP's footing: Fader Networks, RankCGAN, RelGAN.

    python study/rivals.py relgan --attr smile              train one; results in runs/smile-relgan
    python study/rivals.py relgan --mask --out runs/masked  or fn, rcgan; --help has the settings
    python study/rivals.py judge runs/smile runs/smile-fn   as eval.py: TRIP's run first, its R judges all

Written anew from their papers and from what their released programs do. They get TRIP's pictures, its falling
rates and, by default, the time of its default run of commit e3c4f7e on one core. Every generator is G(x, v).
But v means two things: TRIP and RelGAN are asked for a *change* (0: none), FN and RankCGAN for a *strength*
(-1: none of it, 1: all, 0: half, of anybody). B pictures in a batch, K attributes; labels y (B, K), 0 or 1.

    fn           an auto-encoder. A discriminator P reads the label off the code z, the encoder learns to
                 mislead it, and the decoder gets it from outside: (1 - alpha, alpha), alpha = (1 + v) / 2
    rcgan        draws from noise z and a strength r; no picture goes in. Its ranker learns from real pairs.
                 Then two encoders learn to read z and r off *drawn* pictures. Edit: x -> z, drawn with r = v
    relgan       three heads on the same features: is y real; do (x, y, v) fit; how far is y from both ends of
                 the dial? v is the difference of two pictures' labels: in training -1, 0 or 1

           paper or released code                   here
    fn     6 layers to a code of 4 x 4, at 256 px   to 2 x 2 at any size (at 64 px, 4 x 4 is known to fail)
           lambda 1e-4 after 500,000 updates        lam_lat after `ramp` of STEPS; batch 16, rates 1e-3
    rcgan  64 filters, batches of 64, rates 2e-4    32, 16 (8 pairs), 1e-3, 1e-4; D sees the pairs' pictures
    relgan Table 3's generator                      TRIP's, which warps and paints; its f0 is x by itself
           penalty 150 on a map's sum, norm 1       4 on its mean, norm 0; TRIP's rates and shift
           "wrong" triplets that fit, if K = 1      so, too; --mask leaves them out

The methods end at the line of ====; below it is the command line.
"""

import argparse
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as entropy, cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402
from trip import InputError, setting  # noqa: E402

# rival -> its defaults, where they are not trip.Config's. `steps`: what that run of TRIP had time for
DEFAULTS = {
    "fn": dict(steps=970, batch=16, lr_g=1e-3, lr_r=1e-3, grad_clip=5.0),
    "rcgan": dict(steps=1750, lr_g=1e-3, lr_r=1e-4),
    "relgan": dict(steps=740, lam_g=1.0, lam_gp=4.0, lam_c=10.0, lam_o=1e-6, beta2=0.99)}
COMMON = "attr data root size steps batch seed lr_g lr_r lr_decay_start grad_clip".split()
SETTINGS = {"fn": ["width", "lam_lat", "ramp"], "rcgan": ["width", "gan_share"],
            "relgan": "width shift lam_g lam_gp gp_center lam_int lam_c lam_o mask".split()}


@dataclass
class Config(trip.Config):
    """trip.Config and a few more. A rival uses what SETTINGS says."""
    rival: str = setting("relgan", "which one", choices=tuple(SETTINGS))
    batch: int = setting(8, "pictures, or pairs of them, in a batch", 2)
    lam_lat: float = setting(1e-2, "weight of misleading the discriminator of the code")
    ramp: float = setting(0.5, "share of STEPS in which this weight rises from 0", 1e-9, 1)
    gan_share: float = setting(0.56, "share of STEPS without the encoders; they have the rest", 0.01, 0.99)
    lam_int: float = setting(10.0, "weight of the interpolation losses")
    mask: bool = setting(False, "leave out the wrong triplets that fit")
    beta2: float = setting(0.999, "Adam's beta 2", 0, 0.9999)
    grad_clip: float = setting(10.0, "longest gradient of a step")

    def __post_init__(self):
        super().__post_init__()
        if len(self.attr) > 1 and self.rival == "rcgan":
            raise InputError(f"--attr {trip.as_typed(self.attr)}: {self.rival} learns one attribute")


def configured(rival, **given):
    """The Config of a rival: its defaults, on photographs four times as long, and what is given."""
    photo = given.get("data", "faces") != "faces"
    more = dict(steps=4 * DEFAULTS[rival]["steps"]) if photo else {}
    return Config(**DEFAULTS[rival] | more | given | dict(rival=rival))


def draw(train_data, n, rng, device):
    """Endless batches of n training pictures x, mirrored at random as in data.pairs, and their labels y."""
    while True:
        rows = torch.randint(len(train_data), (n,), generator=rng)
        x = data.mirrored(data.as_float(train_data.images[rows].to(device)), rng)
        yield x, train_data.labels[rows].float().to(device)


class Rival(trip.Run):
    """A run as trip.py and eval.py know it, with other players and no R, as none has TRIP's kind of ranker.

    A subclass has `players`, networks by name, also G if it isn't TRIP's, and `iterate`: a step of each; it
    returns the weighted losses. All but G share an optimiser, opt_r. nets: what a checkpoint holds.
    """
    nets = "G", "D", "opt_g", "opt_r"
    draws = 0  # iterate(x, y) gets this many batches from `draw`; 0: iterate(x, y, r), a batch of data.pairs

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        with torch.random.fork_rng(devices=[]):  # as trip.Run has it
            torch.manual_seed(config.seed)
            players = {"G": self.G} | self.players(config, len(config.attr))
        vars(self).update(players, R=None, warmup=0)
        G, *others = [net.to(self.device, memory_format=torch.channels_last) for net in players.values()]
        own = dict(betas=(0.5, config.beta2))
        self.opt_g = torch.optim.Adam(G.parameters(), **self.opt_g.defaults | own)
        self.opt_r = torch.optim.Adam(nn.ModuleList(others).parameters(), **self.opt_r.defaults | own)
        for optimizer in (self.opt_g, self.opt_r):
            optimizer.register_step_pre_hook(self.clip)

    def clip(self, optimizer, *_):
        moved = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        nn.utils.clip_grad_norm_(moved, self.config.grad_clip)

    def train(self, train_data):
        """Go on to config.steps iterations, as trip.train does; yields the weighted losses of each."""
        c = self.config
        stream = (draw(train_data, self.draws * c.batch, self.rng, self.device) if self.draws else
                  data.pairs(train_data, c.batch, self.rng, device=self.device))
        torch.manual_seed(c.seed)  # (of FN's dropout)
        while self.step < c.steps:
            trip.set_lr(self)
            losses = self.iterate(*next(stream))
            self.step += 1
            yield losses

    @torch.no_grad()
    def measure(self, x, labels):
        """For eval.fit: no outputs of an R, and recon_l1 of held-out pictures."""
        back = eval.translate(self.G, x, torch.zeros(1, labels.shape[1]))[:, 0]
        return {}, {"recon_l1": (x - back).abs().mean().item()}


def halving(a, b, norm=True, bias=True):
    """Layers from a to b channels, half as wide and high."""
    return [nn.Conv2d(a, b, 4, 2, 1, bias=bias), *[nn.BatchNorm2d(b)][:norm], nn.LeakyReLU(0.2)]


class Fader(nn.Module):
    """D(E(x), alpha): a code z = E(x), (B, c, 2, 2), and a decoder whose every layer gets alpha. No skips."""

    def __init__(self, K, width, size):
        super().__init__()
        channels = [3] + [min(width << i, 16 * width) for i in range(size.bit_length() - 2)]
        steps = list(zip(channels, channels[1:]))
        self.encode = nn.Sequential(*sum((halving(a, b, norm=a > 3) for a, b in steps), []))
        self.decoder = nn.ModuleList([nn.Sequential(
            nn.ConvTranspose2d(b + 2 * K, a, 4, 2, 1, bias=a == 3),  # (no norm, so a bias)
            *([nn.BatchNorm2d(a), nn.ReLU()] if a > 3 else [nn.Tanh()])) for a, b in steps[::-1]])

    def decode(self, z, alpha):
        """The picture of a code z with strengths alpha (B, K), 0 absent .. 1 present."""
        for layer in self.decoder:
            z = layer(trip.condition(z, torch.cat([1 - alpha, alpha], 1)))
        return z

    def forward(self, x, v):
        return self.decode(self.encode(x), (1 + v) / 2)


class FN(Rival):
    """Fader Networks (Lample et al. 2017)."""
    nets = "G", "P", "opt_g", "opt_r"
    draws = 2

    def players(self, c, K):
        G, most = Fader(K, c.width, c.size), 16 * c.width
        return {"G": G, "P": nn.Sequential(  # goes on to 1 x 1; (B, 2, K): scores of absent, of present
            *halving(G.encode[-3].out_channels, most), nn.Dropout(0.3), nn.Flatten(), nn.Linear(most, most),
            nn.LeakyReLU(0.2), nn.Linear(most, 2 * K), nn.Unflatten(1, (2, K)))}

    def iterate(self, x, y):
        """P learns the label of a code; G to draw x from code and label, and to make P say the other one."""
        c, G, P, K = self.config, self.G, self.P, y.shape[1]
        (x_p, x), (y_p, y) = x.chunk(2), y.long().chunk(2)  # a batch for each of them
        G.eval(), P.train()  # (as released: who learns is in training mode, who is asked is not)
        read = {"ranker_latent": K * cross_entropy(P(G.encode(x_p).detach()), y_p)}  # (summed over the K)
        trip.update(P, self.opt_r, read)
        G.train(), P.eval()
        z = G.encode(x)
        lam = c.lam_lat * min(1, self.step / (c.ramp * c.steps))  # rises from 0
        losses = {"generator_mse": ((G.decode(z, y) - x) ** 2).mean(),
                  "generator_latent": lam * K * cross_entropy(P(z), 1 - y)}
        trip.update(G, self.opt_g, losses)
        return read | losses


def reader(outputs, width, size, bias=False):
    """DCGAN's discriminator: (B, 3, size, size) -> (B, outputs)."""
    channels = [3] + [width << i for i in range(size.bit_length() - 3)]
    layers = sum((halving(a, b, bias=bias) for a, b in zip(channels, channels[1:])), [])
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], outputs, 4, bias=bias), nn.Flatten())


class Editor(nn.Module):
    """G(x, v) = drawn(z(x), v): of x nothing is left but the 100 numbers that an encoder reads off it."""

    def __init__(self, K, width, size, noise=100):
        super().__init__()
        channels = [noise + K] + [width << i for i in range(size.bit_length() - 3)][::-1]
        layers = []  # DCGAN's generator: 1 x 1, 4 x 4, 8 x 8 ...
        for a, b in zip(channels, channels[1:]):
            place = (2, 1) if layers else (1, 0)  # stride, padding
            layers += [nn.ConvTranspose2d(a, b, 4, *place, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.up = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
        self.z, self.r = reader(noise, width, size), nn.Sequential(reader(K, width, size), nn.Tanh())

    def drawn(self, z, r):
        """The picture of noise z (B, 100) with strengths r (B, K)."""
        return self.up(torch.cat([z, r], 1)[:, :, None, None])

    def forward(self, x, v):
        return self.drawn(self.z(x), v)


class RankCGAN(Rival):
    """RankCGAN (Saquil et al. 2018). RankNet: the entropy of a difference of two scores."""
    nets = "G", "D", "ranker", "opt_g", "opt_r"

    def players(self, c, K):
        nets = Editor(K, c.width, c.size), reader(1, c.width, c.size), reader(K, c.width, c.size, bias=True)
        for layer in [layer for net in nets for layer in net.modules()]:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):  # DCGAN's first weights
                nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), 0.02)
        return dict(zip(("G", "D", "ranker"), nets))

    def iterate(self, x, y, r):
        """A step of D, of the ranker, on real pairs only, and of G; in the end of the encoders instead."""
        c, G, D, ranker, real = self.config, self.G.train(), self.D, self.ranker, torch.cat([x, y])
        z = torch.randn(len(real), G.up[0].in_channels - 1, generator=self.rng).to(self.device)
        strength = 2 * trip.uniform(self, len(real), 1) - 1
        if self.step >= c.gan_share * c.steps:
            G.up.eval()
            drawn = G.drawn(z, strength).detach()  # (no encoder ever sees a real picture: as released)
            losses = {"generator_z": ((G.z(drawn) - z) ** 2).mean(),
                      "generator_r": ((G.r(drawn) - strength) ** 2).mean()}
            trip.update(G, self.opt_g, losses)  # (G.up had no part in them)
            return losses
        fake, one = G.drawn(z, strength), torch.ones_like(strength)
        judged = {"ranker_gan": entropy(D(real), one) + entropy(D(fake.detach()), 0 * one)}
        trip.update(D, self.opt_r, judged)
        score_x, score_y = ranker(real).chunk(2)
        rank = {"ranker_rank": entropy(score_y - score_x, (r + 1) / 2)}
        trip.update(ranker, self.opt_r, rank)
        (score_i, score_j), (i, j) = ranker(fake).chunk(2), strength.chunk(2)  # of other noise, too
        losses = {"generator_gan": entropy(D(fake), one),
                  "generator_rank": entropy(score_i - score_j, (i >= j).float())}
        trip.update(G.up, self.opt_g, losses)
        return judged | rank | losses


class Triplet(nn.Module):
    """Three heads on the features F (B, c, 4, 4) of trip.Ranker; each answers with a map (B, 1, 4, 4)."""

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
        return self.match_head(trip.condition(torch.cat([fx, fy], 1), v))

    def discriminate(self, fx):
        """What trip.gradient_penalty smooths: (B, 1), the mean of the map."""
        return self.real(fx).mean((2, 3))


def wrong_triplets(y):
    """The four triplets (x, y, v) that shall not fit, of pictures a, b, c. y: {"a": labels (B, K), ...}.

    Yields x's and y's names, v, and 0 where v fits after all, else 1, (B, 1, 1, 1). With K = 1 it fits in two
    of the four where b and a differ; in all or none where not.
    """
    v, v_ac, v_cb = y["b"] - y["a"], y["c"] - y["a"], y["b"] - y["c"]
    for i, j, u in (("c", "b", v), ("a", "c", v), ("a", "b", v_ac), ("a", "b", v_cb)):
        yield i, j, u, (u != y[j] - y[i]).any(1).float()[:, None, None, None]


class RelGAN(Rival):
    """RelGAN (Wu et al. 2019)."""
    draws = 3

    def players(self, c, K):
        return {"D": Triplet(K, c.width, c.size)}

    def iterate(self, x, y):
        """A step of the heads, then one of G, with f = G(a, v), f0 = G(a, 0), fi = G(a, alpha v)."""
        c, G, D = self.config, self.G, self.D
        (a, *_), labels = x.chunk(3), dict(zip("abc", y.chunk(3)))
        v, (alpha, mix) = labels["b"] - labels["a"], trip.uniform(self, 2, len(a), 1, 1, 1)
        f, f0, fi = G(torch.cat([a, a, a]), torch.cat([v, 0 * v, alpha.flatten(1) * v])).chunk(3)
        seen = D.features(trip.augmented(self, torch.cat([x, f, f0, fi]).detach()))
        of = dict(zip(("a", "b", "c", "f", "f0", "fi"), seen.chunk(6)))
        match = ((D.match(of["a"], of["b"], v) - 1) ** 2).mean() + (D.match(of["a"], of["f"], v) ** 2).mean()
        match += sum(((wrong if c.mask else 1) * D.match(of[i], of[j], u) ** 2).mean()
                     for i, j, u, wrong in wrong_triplets(labels))
        end = torch.where(alpha < 0.5, D.between(of["f0"]), D.between(of["f"]))  # the nearer one
        between = ((D.between(of["fi"]) - torch.minimum(alpha, 1 - alpha)) ** 2).mean() + (end ** 2).mean()
        judged = {"ranker_gan": c.lam_g * trip.ranker_gan_loss(D.real(of["b"]), D.real(of["f"])),
                  "ranker_match": match, "ranker_between": c.lam_int * between,
                  "ranker_gp": c.lam_gp * trip.gradient_penalty(D, a, f.detach(), mix, c.gp_center)}
        trip.update(D, self.opt_r, judged)
        fa, ff, ffi = D.features(trip.augmented(self, torch.cat([a, f, fi]))).chunk(3)
        losses = {"generator_gan": c.lam_g * trip.generator_gan_loss(D.real(ff)),
                  "generator_match": ((D.match(fa, ff, v) - 1) ** 2).mean(),
                  "generator_between": c.lam_int * (D.between(ffi) ** 2).mean(),
                  "generator_cycle": c.lam_c * trip.cycle_loss(a, G(f, -v)),
                  "generator_self": c.lam_c * trip.cycle_loss(a, f0),
                  "generator_orthogonal": c.lam_o * trip.orthogonal_penalty(G)}
        trip.update(G, self.opt_g, losses)
        return judged | losses


RIVALS = {"fn": FN, "rcgan": RankCGAN, "relgan": RelGAN}


def restore(folder, device="cpu"):
    """The run in a folder, a rival's or TRIP's; InputError as trip.restore has it."""
    kind = RIVALS.get(trip.settings_in(trip.checkpoint(folder)).get("rival"))
    if kind:
        return trip.restore(folder, device, kind, Config, kind.nets)
    return trip.restore(folder, device)


# ============================================================================================================
# The command line

@trip.program("study/rivals.py")
def main(argv):
    """Train a rival to its end, or judge runs. Returns the exit code."""
    if argv[:1] == ["judge"]:
        return eval.command(argv[1:], restore)
    parser = trip.parser("study/rivals.py", "Train a rival of TRIP; or: judge RUN RUN ..., as eval.py does.")
    add = parser.add_argument
    add("rival", choices=list(RIVALS))
    add("--out", type=Path, help="folder of the run (default: as in runs/smile-relgan)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the first of cuda, mps, cpu)")
    options = [f for f in fields(Config) if f.name in {*COMMON, *sum(SETTINGS.values(), [])}]
    for f in options:
        kinds = {tuple: dict(nargs="+"), bool: dict(action=argparse.BooleanOptionalAction)}
        kind = kinds.get(f.type, dict(type=f.type))
        own = [f"{rival} {its[f.name]}" for rival, its in DEFAULTS.items() if f.name in its]
        default = ", ".join([trip.as_typed(f.default) or "none", *own])
        add(f"--{f.name}", default=argparse.SUPPRESS, **kind,
            help=f"{f.metadata['help']} (default: {default})")
    args = parser.parse_args(argv)
    given = {f.name: f.type(getattr(args, f.name)) for f in options if hasattr(args, f.name)}
    for name in given.keys() - {*COMMON, *SETTINGS[args.rival]}:
        raise InputError(f"--{name}: {args.rival} has none such; it has {', '.join(SETTINGS[args.rival])}")
    c = configured(args.rival, **given)
    out = args.out or Path("runs") / f"{'_'.join(c.attr)}-{c.rival}"
    with data.alone(out):
        if (out / "trip.pt").exists():
            raise InputError(f"{out} holds a run: remove it, or name another folder with --out")
        run = RIVALS[c.rival](c, trip.choose_device(args.device))
        train_data, test_data = data.load(c.data, c.attr, c.size, c.root)
        if c.batch > len(train_data):
            raise InputError(f"--batch {c.batch}: there are {len(train_data)} training pictures; type fewer")
        print(f"{c.rival}: {c.data}, {trip.as_typed(c.attr)}; {run.device}; results, at the end: {out}")
        try:
            tell = eval.progress(run)
            for record in eval.fit(run, run.train(train_data), test_data, look=run.measure):
                tell(record)
            trip.save(run, out, run.nets)
        except eval.Diverged as error:
            raise InputError(f"stopped: {error}; start anew with a smaller --lr_g or --lr_r") from None
        eval.report(run, out, test_data)
        return 0


if __name__ == "__main__":
    sys.exit(main())
