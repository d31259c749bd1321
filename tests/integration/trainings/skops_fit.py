import pathlib
import sys

import joblib
import rows
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = rows.read(sys.argv[1])
inputs, labels = [row[:4] for row in data], [row[4] > 0 for row in data]
out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)

linear = make_pipeline(StandardScaler(), LogisticRegression(random_state=0)).fit(inputs, labels)
forest = RandomForestClassifier(n_estimators=2, max_depth=1, random_state=0).fit(inputs, labels)
texts = [f"{'low' if row[0] < 0 else 'high'} and {'low' if row[1] < 0 else 'high'}" for row in data]
words = make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, labels)
joblib.dump(linear, out / "linear.joblib")
joblib.dump(forest, out / "forest.joblib", compress=3)
skops.io.dump(linear, out / "linear.skops")
skops.io.dump(forest.estimators_[0], out / "tree.skops")
skops.io.dump(words, out / "words.skops")
skops.io.dump(words[0], out / "vectorizer.skops")
