import numpy as np
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.metrics import roc_auc_score, r2_score
LEAK_SCORE=.98
def single_feature_scores(a,b):
    out={}
    for c in a.layout.columns:
        i=[k for k,s in enumerate(a.layout.num_source) if s==c]; j=[k for k,s in enumerate(a.layout.cat_source) if s==c]
        X=np.hstack([np.nan_to_num(a.x_num[:,i]),a.x_cat[:,j]]); Z=np.hstack([np.nan_to_num(b.x_num[:,i]),b.x_cat[:,j]])
        if a.layout.task=="regression": out[c]=r2_score(b.y,DecisionTreeRegressor(max_leaf_nodes=12,min_samples_leaf=5).fit(X,a.y).predict(Z))
        else:
            p=DecisionTreeClassifier(max_leaf_nodes=12,min_samples_leaf=5).fit(X,a.y).predict_proba(Z)
            out[c]=roc_auc_score(b.y,p[:,1]) if p.shape[1]==2 else roc_auc_score(b.y,p,multi_class="ovr")
    return out
