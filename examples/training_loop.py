"""The training loop written by hand: python examples/training_loop.py.

The same model, loss and optimizer objects that a Trainer takes.
"""

import numpy as np

import minidl

minidl.seed(0)
rng = np.random.default_rng(0)
(x_train, y_train), (x_test, y_test) = minidl.fashion_mnist()
x_train, x_test = x_train.astype("float32") / 255, x_test.astype("float32") / 255

model = minidl.Sequential(
    [minidl.Flatten(), minidl.Dense(128, activation="relu"), minidl.Dropout(0.2), minidl.Dense(10)],
    input_shape=(28, 28),
)
optimizer = minidl.Adam(model.parameters(), lr=0.001)

for epoch in range(1, 3):
    model.train()
    for batch in np.split(rng.permutation(len(x_train)), len(x_train) // 100):
        loss = minidl.cross_entropy(model(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    with minidl.no_grad():
        accuracy = minidl.accuracy(model(x_test), y_test).item()
    print(f"epoch {epoch}: last batch loss {loss.item():.4f}, test accuracy {accuracy:.4f}")
