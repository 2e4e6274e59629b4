"""eval.py. Each test's name is a claim; every metric is tried on cases whose answer is known."""

import functools
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import pytorch_fid.inception
import scipy.linalg
import scipy.stats
import skimage.metrics
import torch
import torchvision.models
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import nn

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

import data  # noqa: E402
import eval  # noqa: E402
import trip  # noqa: E402

TINY = "--size 32 --width 4 --batch 4".split()
INCEPTION, RESNET18 = eval.inception, torchvision.models.resnet18
SMILE = data.FACE_ATTRS.index("smile")


def quiet(text):
    pass


def small_net(num_classes):
    """In place of ResNet-18, which learns no better at 32 pixels and for twenty times as long."""
    return nn.Sequential(eval.Brighten(), nn.Conv2d(3, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),
                         nn.Linear(1024, num_classes))


@pytest.fixture(scope="module", autouse=True)
def fewer_faces():
    """2,500 faces for all tests here, 250 of them to test on, and judges that learn as long as they need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "resnet18", small_net)
        patch.setattr(eval, "classifier", functools.partial(eval.classifier, steps=300))
        patch.setattr(eval, "strength_judge", functools.partial(eval.strength_judge, steps=1000, faces=8000))
        patch.setitem(data.DATASETS, "faces", (functools.cache(functools.partial(some_faces, 2500)), ""))
        yield


def some_faces(n, attrs, size, root, seed):
    return data.split(data.faces(attrs, size, seed, n), seed)


@pytest.fixture(scope="module")
def smiles(fewer_faces):
    """Drawn faces at 32 pixels, (train, test); the first test faces only, so that the tests are quick."""
    train, test = data.load("faces", ("smile",), 32)
    return train, test[:128]


@pytest.fixture
def few(monkeypatch):
    """400 faces in all: 40 to test."""
    monkeypatch.setitem(data.DATASETS, "faces", (functools.partial(some_faces, 400), ""))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder for runs, and their judges."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def judges(runs, smiles):
    """Where the judges of these faces are kept: as eval.py's own, but trained on fewer faces."""
    eval.classifier(smiles[0], "cpu", quiet, runs / "judges")
    eval.strength_judge(32, "cpu", quiet, runs / "judges")
    return runs / "judges"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The tests never fetch the Inception network."""
    monkeypatch.setattr(eval, "inception", lambda device: None)


@pytest.fixture(scope="module")
def run_folder(runs, fewer_faces):
    """A tiny finished run."""
    assert trip.main(["--steps", "8", *TINY, "--out", str(runs / "smile")]) == 0
    return runs / "smile"


@pytest.fixture(scope="module")
def folders(run_folder, runs):
    """The tiny run, one of another attribute, and one whose checkpoint was cut short."""
    assert trip.main(["--attr", "frown", "--steps", "2", *TINY, "--out", str(runs / "frown")]) == 0
    (runs / "broken").mkdir()
    (runs / "broken" / "trip.pt").write_bytes((run_folder / "trip.pt").read_bytes()[:-1000])
    return {"RUN": run_folder, "FROWN": runs / "frown", "BROKEN": runs / "broken"}


class Same(nn.Module):
    """A generator that ignores v."""

    def forward(self, x, v):
        return x


class Redraw(nn.Module):
    """The perfect generator: draws the face again, its strength moved towards 0 (v = -1) or 1 (v = +1).

    spoilt: another attribute that moves with it.
    """

    def __init__(self, faces, spoilt=None):
        super().__init__()
        self.faces, self.spoilt = faces, spoilt
        self.row = {image.numpy().tobytes(): i for i, image in enumerate(faces.images)}

    def forward(self, x, v):
        pixels = ((x + 1) * 127.5).round().to(torch.uint8)
        person = self.faces.person[[self.row[image.contiguous().numpy().tobytes()]
                                    for image in pixels]].copy()
        for attr in {SMILE, self.spoilt} - {None}:
            s = person[:, attr]
            person[:, attr] = np.where(v[:, 0] > 0, s + (1 - s) * v[:, 0].numpy(), s + s * v[:, 0].numpy())
        return data.as_float(data.draw_faces(person, x.shape[-1]))


def assess(G, smiles, judges, metrics=eval.METRICS):
    run = trip.Run(trip.Config(size=32, width=4))
    run.G = G
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval, "inception", lambda device: None)
        called = eval.call_judges(metrics, smiles[0], "cpu", quiet, judges)
    result, = eval.assess(run, smiles[1], called, metrics)
    return result.scores


@pytest.fixture(scope="module")
def same(smiles, judges):
    return assess(Same(), smiles, judges)


@pytest.fixture(scope="module")
def redrawn(smiles, judges):
    return assess(Redraw(smiles[1]), smiles, judges)


def pictures(n=6, size=40):
    return data.as_float(data.faces(("smile",), size, n=n).images)


# ------------------------------------------------------------------------------------------------------------
# Measures

def test_ssim_equals_that_of_scikit_image():
    x = pictures()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for y in (x, x.roll(1, 0), x + 0.1 * noise, -x):
        expected = [skimage.metrics.structural_similarity(a.numpy(), b.numpy(), gaussian_weights=True,
                                                          sigma=1.5, channel_axis=0,
                                                          use_sample_covariance=False, data_range=2.0)
                    for a, b in zip(x, y)]
        assert np.allclose(eval.ssim(x, y), expected, atol=1e-4)


def test_ssim_score_is_the_std_over_the_steps_averaged_over_pictures():
    assert eval.ssim_score(np.full((3, 10), 0.9)) == pytest.approx(0)
    one_jump = np.array([[1.0] * 9 + [0.0]])  # mean 0.9, variance (9 * 0.01 + 0.81) / 10
    assert eval.ssim_score(one_jump) == pytest.approx(0.3)
    assert eval.ssim_score(np.concatenate([one_jump, np.ones((1, 10))])) == pytest.approx(0.15)


def exact(mean, covariance, n=50):
    """n features with exactly this mean and covariance."""
    x = np.random.RandomState(0).randn(n, len(mean))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_two_gaussians_is_the_closed_form_and_in_double_precision():
    a = exact([0, 0, 0], np.diag([1.0, 4, 9]))
    b = exact([1, 2, 2], np.diag([4.0, 4, 1]))
    assert eval.frechet_distance(a, b) == pytest.approx(9 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2)
    assert eval.frechet_distance(a, a[::-1].copy()) == pytest.approx(0, abs=1e-9)
    assert eval.frechet_distance(a + 1e4, a + 1e4 + 0.5) == pytest.approx(0.75, rel=1e-6)


def test_frechet_distance_is_that_of_pytorch_fid_and_right_with_fewer_pictures_than_features():
    rng = np.random.RandomState(0)
    a, b = rng.randn(10, 64), rng.randn(12, 64)
    assert eval.frechet_distance(a, a + 2) == pytest.approx(4 * 64)  # only the mean moved
    values = scipy.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = means + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * np.sqrt(values).sum()
    assert eval.frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    a, b = rng.randn(200, 20) @ rng.randn(20, 20), 1 + rng.randn(300, 20) @ rng.randn(20, 20)
    expected = calculate_frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert eval.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_ranks_are_scipys_and_the_correlation_is_pearsons_or_zero_for_a_constant():
    x = np.random.RandomState(0).randint(0, 5, (20, 11)).astype(float)  # with ties
    assert np.array_equal(eval.ranks(x), scipy.stats.rankdata(x, axis=-1))
    a, b = np.random.RandomState(0).randn(2, 5, 11)
    assert np.allclose(eval.correlation(a, b), [scipy.stats.pearsonr(u, w)[0] for u, w in zip(a, b)])
    assert np.array_equal(eval.correlation(np.ones((2, 11)), a[:2]), [0, 0])


def test_negative_v_is_asked_of_pictures_with_the_attribute_and_positive_v_of_the_others():
    assert eval.swap_strength(torch.tensor([True, False])).tolist() == [-1, 1]
    mask = eval.where_asked(torch.tensor([True, False]))
    assert eval.V[mask[0]].max() == 0 and eval.V[mask[1]].min() == 0  # v = 0 of both
    assert mask.sum(1).tolist() == [7, 7]


def test_ranker_scores_by_hand():
    has = torch.tensor([True, True, False, False])
    R = np.tile(eval.V / 2, (4, 1)) + np.array([[0.1], [-0.1], [0.1], [-0.1]])
    scores = eval.ranker_scores(R, has)
    assert scores["ranker_mean"] == pytest.approx([-0.5, -0.25, 0, 0.25, 0.5])
    assert scores["ranker_std"] == pytest.approx([0.1] * 5)
    assert scores["ranker_sweep_mean"] == pytest.approx([v / 2 for v in eval.SWEEP])
    assert eval.ranker_scores(-R, has)["ranker_pearson"] < -0.9
    never_asked = np.where(eval.where_asked(has), R, 100)  # what footnote 3 leaves out has no weight
    assert eval.ranker_scores(never_asked, has) == scores


@pytest.mark.parametrize("size, parts", [(32, [128, 128, 44]), (128, [8] * 37 + [4]), (1024, [1] * 300)])
def test_pictures_go_through_a_network_in_parts_of_2_to_the_17_pixels(size, parts):
    x, v, seen = torch.empty(300, 3, size, size, device="meta"), torch.arange(300.0)[:, None], []

    def count(x, v):
        seen.append(len(x))
        return 2 * v

    assert torch.equal(eval.in_parts(count, x, v), 2 * v) and seen == parts


def labelled(labels):
    """A data set of these labels, (N, K); picture i is of colour i."""
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 1, 1)
    return data.Data(images, labels, tuple("abcd"[:labels.shape[1]]))


@pytest.mark.parametrize("K", [1, 2, 4])
def test_the_evaluation_batch_is_of_distinct_pictures_as_many_with_an_attribute_as_without(K):
    labels = torch.rand(250, K, generator=torch.Generator().manual_seed(0)) < 0.5
    x, its = eval.evaluation_batch(labelled(labels), "cpu")
    rows = ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert len(set(rows)) == len(rows) == 128 and torch.equal(its, labels[rows])
    assert its[:, -1].sum() == 64 and (its.sum(0) - 64).abs().max() <= 16
    labels = torch.arange(200)[:, None] % 100 < torch.tensor([50] * (K - 1) + [1])  # the last one is rare
    _, its = eval.evaluation_batch(labelled(labels), "cpu")
    assert its[:, -1].sum() == 2


@pytest.mark.parametrize("n", [2, 3, 4, 7, 128])
def test_no_picture_is_paired_with_itself(n):
    """R(x, y) = |y - x|, on pictures that all differ: it would be 0 of a pair (x, x)."""
    class Apart(nn.Module):
        features = nn.Identity()

        def rank(self, fx, fy):
            return (fy - fx).abs().amax((1, 2, 3))[:, None]

    x = torch.arange(float(n))[:, None, None, None].expand(-1, 3, 2, 2)
    outputs, _ = eval.measure(Same(), Apart(), x, torch.zeros(n, 1, dtype=torch.bool))
    assert len(outputs["real_zero"][0]) >= n and (outputs["real_zero"][0] > 0).all()


def test_the_log_grows_with_the_measurements_not_with_the_iterations_between(monkeypatch):
    """And the means that it keeps are those of all losses since the last measurement."""
    def losses():
        for run.step in range(1, steps + 1):
            yield {"ranker_rank": torch.tensor(float(run.step), requires_grad=True) * 2}

    def save():
        assert run.step == 0 or run.log["recent"] == []
        torch.save(run.log, file := io.BytesIO())
        sizes.append(len(file.getvalue()))

    sizes, faces = [], labelled(torch.arange(8)[:, None] % 2 == 0)
    monkeypatch.setattr(eval, "SAVE_EVERY", 25)
    for steps in (100, 400):
        run = trip.Run(trip.Config(size=32, width=2, steps=steps))
        list(eval.fit(run, losses(), faces, save, lambda x, labels: ({}, {"recon_l1": 0.0})))
        assert len(run.log["history"]) == 50
        assert run.log["history"][-1]["ranker_rank"] == 2 * steps - (steps // 50 - 1)
    assert len(sizes) == 5 + 17 and abs(sizes[4] - sizes[-1]) < 1000


# ------------------------------------------------------------------------------------------------------------
# Generators whose quality is known

def test_a_generator_that_ignores_v_gets_a_perfect_ssim_score_and_no_swaps(same):
    assert same["aas_judge"] > 80 and same["judge_r2"][SMILE] > 0.9  # (good enough to test with)
    assert same["ssim_score"] == pytest.approx(0, abs=1e-6)
    assert same["aas"] == pytest.approx(100 - same["aas_judge"])  # only the judge's own mistakes
    assert same["frechet_resnet18"] == pytest.approx(0, abs=1e-6)
    assert same["recon_l1"] == same["outside_l1"] == 0
    for name in ("true_spearman", "true_linearity", "true_range"):
        assert same[name] == pytest.approx(0, abs=1e-6)
    assert same["leakage"] == pytest.approx(same["leakage_judge"])


def test_a_generator_that_redraws_the_face_is_found_perfect(redrawn):
    assert redrawn["aas"] > 92
    assert redrawn["true_spearman"] > 0.95 and redrawn["true_linearity"] > 0.97
    assert 0.75 < redrawn["true_range"] < 1.1  # a judge in doubt keeps to the middle
    assert redrawn["leakage"] < 1.3 * redrawn["leakage_judge"]
    assert redrawn["recon_l1"] < 1e-6 and redrawn["outside_l1"] < 1e-6
    assert 0 < redrawn["ssim_score"] < 0.02


def test_a_generator_that_moves_another_attribute_too_is_found_out(smiles, judges, redrawn):
    spoilt = assess(Redraw(smiles[1], data.FACE_ATTRS.index("mouth_open")), smiles, judges, ("truth",))
    assert spoilt["leakage"] > 2 * redrawn["leakage"]  # the mouth's opening alone, of three others
    assert spoilt["true_spearman"] > 0.9


def test_the_order_is_measured_apart_where_the_dial_is_asked():
    strengths = np.array([[0.9, 0.2], [0.1, 0.2]])  # of two faces; the second is the dial's
    strengths[0, 1] = 0.8
    seen = np.repeat(strengths[:, None], len(eval.V), 1)
    seen[0, :, 1] += 0.5 * np.minimum(eval.V, 0)  # the smile gets less, and no more
    seen[1, :, 1] += 0.5 * np.maximum(eval.V, 0)
    assert eval.truth_scores(seen, strengths, strengths, 1, [1])["true_spearman_asked"] == pytest.approx(1)
    assert eval.truth_scores(seen, strengths, strengths, 1, [1])["true_spearman"] < 0.95
    assert eval.truth_scores(seen[::-1], strengths, strengths, 1, [1])["true_spearman_asked"] == 0


def test_a_change_outside_the_region_is_measured_there_alone(smiles, judges):
    class Stained(nn.Module):
        def forward(self, x, v):
            y = x.clone()
            y[:, :, 0, 0] += 0.5  # a corner, where no mouth reaches
            return y
    scores = assess(Stained(), smiles, judges, ("preservation",))
    outside = 32 * 32 - data.region(smiles[1], 0).sum((1, 2, 3)).float()
    assert scores["outside_l1"] == pytest.approx((0.5 / outside).mean().item(), rel=1e-4)
    assert scores["recon_l1"] == pytest.approx(0.5 / 32 ** 2, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------
# Judges

def test_a_judge_is_trained_once_for_the_same_data_and_settings_and_again_if_it_is_damaged(smiles, tmp_path,
                                                                                           monkeypatch):
    monkeypatch.setattr(torchvision.models, "resnet18", RESNET18)
    trained, real = [], eval.fit_judge
    monkeypatch.setattr(eval, "fit_judge", lambda *args: (trained.append(1), real(*args)))
    few, others, x = smiles[0][:100], smiles[0][1:101], pictures(4, 32)
    few.images = few.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # in any memory layout
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    judges = []
    for part, steps, trainings in ((few, 2, 1), (few, 2, 1), (others, 2, 2), (few, 1, 3)):
        judges.append(eval.classifier(part, "cpu", quiet, tmp_path, steps=steps))
        assert len(trained) == len(list(tmp_path.iterdir())) == trainings
    assert torch.equal(judges[0](x), judges[1](x))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    renewed = eval.classifier(few, "cpu", quiet, tmp_path, steps=2)
    assert len(trained) == 4 and torch.equal(judges[0](x), renewed(x))  # and the same as before
    assert torch.equal(torch.rand(3), expected)  # the random numbers of a training are left alone


def test_two_processes_that_store_the_same_judge_at_once_both_survive(tmp_path, monkeypatch):
    """The other one finds none, trains and stores its own while this one is writing."""
    other = ("import sys, eval; from pathlib import Path; "
             "make = lambda: eval.nn.Linear(2, 1); "
             "eval.judge('line', make, lambda net: None, 'cpu', Path(sys.argv[1]), 7)")
    whole = torch.save

    def save(state, file):
        subprocess.run([sys.executable, "-c", other, tmp_path], cwd=HERE, check=True)
        whole(state, file)

    monkeypatch.setattr(torch, "save", save)
    ours = eval.judge("line", lambda: nn.Linear(2, 1), quiet, "cpu", tmp_path, 7)
    path, = tmp_path.iterdir()  # one judge, and no file of another name is left
    assert torch.equal(torch.load(path)["weight"], ours.weight)


def test_an_error_of_the_device_is_no_damaged_judge(smiles, tmp_path, monkeypatch):
    def failing(*args, **options):
        raise RuntimeError(says)

    monkeypatch.setattr(eval, "fit_judge", lambda *_: trained.append(1))
    trained, few, says = [], smiles[0][:100], "CUDA error: an illegal memory access was encountered"
    eval.classifier(few, "cpu", quiet, tmp_path, steps=1)
    before = [path.read_bytes() for path in tmp_path.iterdir()]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="CUDA error"):
        # a judge is read on the CPU, and goes to the device then; a second try would train, and store another
        answers = iter([failing])
        patch.setattr(nn.Module, "to", lambda *a, to=nn.Module.to, **o: next(answers, to)(*a, **o))
        eval.classifier(few, "cpu", quiet, tmp_path, steps=1)
    assert len(trained) == 1 and [path.read_bytes() for path in tmp_path.iterdir()] == before


def test_without_weights_of_inception_there_is_no_fid_and_what_to_do_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    page = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    page.write_text("<!DOCTYPE html>quota exceeded")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert INCEPTION("cpu") is None and f"fetched whole into {page.parent}" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pytorch_fid.inception", None)
    assert INCEPTION("cpu") is None and "for FID: pip install pytorch-fid" in capsys.readouterr().err


def test_only_inception_features_are_called_fid(smiles, judges, monkeypatch):
    assert eval.call_judges(("fid",), smiles[0], "cpu", quiet, judges).features_name == "frechet_resnet18"
    monkeypatch.setattr(eval, "inception", lambda device: lambda x: x.mean((2, 3)))
    with_package = eval.call_judges(("fid",), smiles[0], "cpu", quiet, judges)
    assert with_package.features_name == "fid" and with_package.classifier is None


def test_fid_is_of_pictures_as_if_read_from_files_of_8_bits(monkeypatch):
    class Network(nn.Module):
        BLOCK_INDEX_BY_DIM = {2048: 3}

        def __init__(self, blocks):
            super().__init__()
            assert blocks == [3]

        def forward(self, x):
            levels = x * 255
            assert 0 <= levels.min() and levels.max() <= 255
            assert torch.allclose(levels, levels.round(), atol=1e-4)
            return [x.mean((2, 3), keepdim=True)]

    monkeypatch.setattr(pytorch_fid.inception, "InceptionV3", Network)
    assert INCEPTION("cpu")(pictures(2, 32) + 0.001).shape == (2, 3)


# ------------------------------------------------------------------------------------------------------------
# The command

def evaluate(capsys, *argv):
    code = eval.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def contents(folder):
    """Each file's bytes and the time it was written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_the_command_writes_scores_and_figures(run_folder, judges, capsys):
    code, out, _ = evaluate(capsys, run_folder)
    assert code == 0
    scores = json.loads((run_folder / "eval.json").read_text())
    assert scores["test_pictures"] == 250 and scores["steps"] == 8
    for name, label, form in eval.ROWS:
        assert (name in scores) == (name not in ("fid", "disentanglement") and not name.startswith("first_"))
        if name in scores:
            line, = [line for line in out.splitlines() if line.startswith(label + "  ")]
            assert " ".join(format(u, form) for u in np.atleast_1d(scores[name])) in line
    for name in ("fig6_box", "fig7_ranker", "fig10_losses", "truth", "samples", "ranker"):
        picture = matplotlib.image.imread(run_folder / f"{name}.png")
        assert picture.shape[1] >= 800 and picture[..., :3].std() > 0.05


def test_a_second_evaluation_trains_no_judge_and_touches_no_file(run_folder, few, monkeypatch, capsys):
    metrics = "--metrics", "aas", "ranker", "truth"
    evaluate(capsys, run_folder, *metrics)
    before = contents(run_folder)
    monkeypatch.setattr(eval, "fit_judge", None)
    monkeypatch.chdir(run_folder)  # named otherwise: the same judges, the same scores
    assert evaluate(capsys, ".", *metrics)[0] == 0
    after, named = contents(run_folder), {"fig6_box.png", "fig7_ranker.png", "truth.png"}  # (in their titles)
    assert {name for name in after if after[name] != before[name]} == named
    for steps, there in ((8, True), (9, False)):  # other metrics' marks stay, of the same state of the run
        marks = json.loads(before["eval.json"][0]) | {"steps": steps}
        (run_folder / "eval.json").write_text(json.dumps(marks))
        evaluate(capsys, run_folder, "--metrics", "ssim")
        scores = json.loads((run_folder / "eval.json").read_text())
        assert "ssim_score" in scores and ("aas" in scores) == there and scores["steps"] == 8


def test_several_runs_are_compared_by_the_first_ones_ranker(run_folder, few, tmp_path, capsys):
    other = tmp_path / "other"
    assert trip.main(["--steps", "6", *TINY, "--seed", "1", "--out", str(other)]) == 0
    code, out, _ = evaluate(capsys, run_folder, other, "--metrics", "ranker")
    assert code == 0 and any(str(run_folder) in line and str(other) in line for line in out.splitlines()[:-1])
    scores = json.loads((other / "eval.json").read_text())
    parts = data.load("faces", ("smile",), 32)
    (G, _, _), (_, R, _) = trip.load(other), trip.load(run_folder)
    x = data.as_float(parts[1].images[~parts[1].labels[:, 0]])
    with torch.no_grad():  # by hand, for v = 1
        expected = R(x, eval.translate(G, x, torch.ones(1))[:, 0]).mean().item()
    assert scores["first_ranker_mean"][4] == pytest.approx(expected, rel=1e-3)
    assert scores["ranker_mean"][4] != pytest.approx(expected, rel=1e-3)
    results = eval.evaluate({"a": trip.restore(run_folder), "b": trip.restore(other)}, parts, ["ranker"])
    compared, alone = eval.fig_ranker(results), eval.fig_ranker(results[1:])
    assert np.allclose(compared.axes[0].lines[1].get_ydata(), scores["first_ranker_sweep_mean"])
    assert np.allclose(alone.axes[0].lines[0].get_ydata(), scores["ranker_sweep_mean"])


def unknown(attrs, size, root, seed):
    """Faces whose truth nobody knows, with attributes of any name."""
    faces = data.faces(data.FACE_ATTRS[:len(attrs)], size, seed, n=200)
    return data.split(data.Data(faces.images, faces.labels, attrs), seed)


@pytest.mark.parametrize("attrs", [("smile",), ("smile", "fr\udcfcn")])
def test_the_files_of_a_run_are_those_that_the_programs_write(attrs, few, tmp_path, monkeypatch, capsys):
    """fr\\udcfcn: a folder's name that is no UTF-8."""
    known = set(attrs) <= set(data.FACE_ATTRS)
    if not known:
        monkeypatch.setitem(data.DATASETS, "faces", (unknown, ""))
    monkeypatch.setattr(eval, "strength_judge", functools.partial(eval.strength_judge, steps=1, faces=100))
    out, other = tmp_path / "a", tmp_path / "b"
    assert trip.main(["--attr", *attrs, "--steps", "4", *TINY, "--out", str(out)]) == 0
    assert trip.main(["--out", str(out), "--edit", str(out / "samples.png"), "--crop", "0", "0", "80"]) == 0
    shutil.copytree(out, other)
    metrics = "ranker", "preservation", *["truth"] * known
    assert evaluate(capsys, out, other, "--metrics", *metrics)[0] == 0
    figures = ["fig6_box", "fig7_ranker", "fig7_compared", *["truth"] * known]
    ends = ["", ".smile", ".fr?n"] if len(attrs) > 1 else [""]
    expected = {f"{name}{end}.png" for name in figures for end in ends[-len(attrs):]}
    expected |= {"samples.png", *["samples.fr?n.png", "fig8_grid.png"] * (len(attrs) > 1)}
    assert {path.name for path in out.iterdir()} == expected | {
        "trip.pt", "history.csv", "ranker.png", "summary.json", "dial.html", "dial.gif", "edit", "edit.png",
        "edit.html", "eval.json", "fig10_losses.png"}
    if len(attrs) > 1:
        scores = json.loads((out / "eval.json").read_text())
        for name in ("ranker_pearson", "recon_l1"):
            assert f"{name}.smile" in scores and name not in scores


def test_the_truth_is_left_out_where_nobody_knows_it_and_refused_if_asked(run_folder, monkeypatch, tmp_path,
                                                                          capsys):
    monkeypatch.setitem(data.DATASETS, "unknown", (unknown, ""))
    run = trip.restore(run_folder)
    run.config.data, run.config.steps = "unknown", 9
    trip.save(run, tmp_path)
    code, _, err = evaluate(capsys, tmp_path, "--metrics", "truth")
    assert code == 2 and "drawn faces" in err
    code, out, _ = evaluate(capsys, tmp_path, "--metrics", "ssim", "preservation")
    assert code == 0 and "is not finished: iteration 8 of 9" in out
    scores = json.loads((tmp_path / "eval.json").read_text())
    assert "recon_l1" in scores and "outside_l1" not in scores and "leakage" not in scores


@pytest.mark.parametrize("argv, message", [
    (["nowhere"], "no run in nowhere"),
    (["RUN", "--metrics", "sim"], "invalid choice: 'sim'"),
    (["RUN", "--device", "tpu"], "--device tpu"),
    (["RUN", "--colour"], "python eval.py --help"),
    ([], "required"),
    (["RUN", "--root", "not/there"], "not/there"),
    (["RUN", "FROWN"], "differs from"),
    (["BROKEN"], "damaged"),
])
def test_a_mistake_gets_one_line_and_changes_nothing(argv, message, folders, runs, capsys):
    before = {path: path.is_file() and path.read_bytes() for path in runs.rglob("*")}
    code, _, err = evaluate(capsys, *[folders.get(a, a) for a in argv])
    assert code == 2 and message in err and len(err.splitlines()) == 1 and err.startswith("eval.py: error: ")
    assert {path: path.is_file() and path.read_bytes() for path in runs.rglob("*")} == before


def test_the_file_is_a_program(tmp_path):
    done = subprocess.run([sys.executable, HERE / "eval.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"eval.py: error: no run in {tmp_path}")


def test_the_losses_of_a_run_that_was_never_measured_are_an_empty_figure(tmp_path):
    run = trip.Run(trip.Config(size=32, width=4))
    run.log |= eval.EMPTY_LOG
    figure = eval.fig_losses(run)
    eval.put(tmp_path / "fig10_losses.png", figure)
    assert [len(axes.lines) for axes in figure.axes] == [0, 0] and (tmp_path / "fig10_losses.png").is_file()


def test_the_middle_of_the_grid_is_the_picture_itself():
    run = trip.Run(trip.Config(attr=("smile", "frown"), size=32, width=4))
    _, test = data.load("faces", run.config.attr, 32)
    grid = eval.fig_grid(run, test, n=1).axes[0].images[0].get_array()
    middle = torch.from_numpy(np.array(grid[32:64, 32:64])).permute(2, 0, 1)
    assert torch.allclose(middle * 255, test.images[0].float(), atol=0.05)
