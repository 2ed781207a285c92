"""Step 2: neural networks on the tensor of step 1, with torch's names: layers to training."""

from typing import TYPE_CHECKING

from groundup.deprecated import renamed
from groundup.nn import init, schedule
from groundup.nn.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    softplus,
)
from groundup.nn.attention import CausalSelfAttention
from groundup.nn.gpt import GPT, GPTConfig
from groundup.nn.init import manual_seed
from groundup.nn.layers import Conv1d, Dropout, Embedding, LayerNorm, Linear, RMSNorm
from groundup.nn.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HingeLoss,
    MSELoss,
    MultiMarginLoss,
    NLLLoss,
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge,
    mse,
)
from groundup.nn.module import Module, Sequential
from groundup.nn.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    RMSprop,
    clip_grad_norm_,
    clip_grad_value_,
)
from groundup.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from groundup.nn.training import History, minibatches, train

__all__ = [
    "ELU",
    "GELU",
    "GPT",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "BCEWithLogitsLoss",
    "CausalSelfAttention",
    "Conv1d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "GPTConfig",
    "GRUCell",
    "HingeLoss",
    "History",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "Module",
    "MultiMarginLoss",
    "NLLLoss",
    "RMSNorm",
    "RMSprop",
    "RNNCell",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "binary_cross_entropy_with_logits",
    "clip_grad_norm_",
    "clip_grad_value_",
    "cross_entropy",
    "hinge",
    "init",
    "manual_seed",
    "minibatches",
    "mse",
    "schedule",
    "softplus",
    "train",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
